"""The values of the OCI image specification and of docker's older schema: frozen, pure, lossless.

``Digest`` names bytes, ``Reference`` names an image somewhere, ``Descriptor`` points at a blob, ``Manifest`` and ``Index`` list
descriptors, ``ImageConfig`` says how layers become a process. A document that is parsed keeps its bytes, so that its digest and its
unknown fields survive. Import from the modules: the command line needs ``reference`` without the rest.
"""
