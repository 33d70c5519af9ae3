"""Starting and ending hosts: what a provisioner is, those that there are, and who drives the one in use."""
