"""Edit populations of trained MLPs so that they meet a requirement."""
