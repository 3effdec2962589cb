"""What is true of this node, read-only; each reader takes a root so that a test hands it a tree."""
