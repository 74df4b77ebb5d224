"""Names, sample sets and metadata, validated."""
