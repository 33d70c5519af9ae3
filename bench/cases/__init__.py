"""The cases, one file each; every file here is imported and registers itself."""
