"""How to call each package tool."""
