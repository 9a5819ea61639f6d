a test of shared
