"""What users add: a kernel, a measure and an architecture, a file each, outside the package."""
