"""What builds keep for later ones, here and elsewhere: outcomes of steps by what they depend on."""
