"""What is stored: names, sample sets and metadata, validated."""
