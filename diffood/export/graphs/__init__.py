"""The torch modules that become graphs, and how they are written."""
