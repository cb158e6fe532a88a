"""Execute notebooks without a browser."""
