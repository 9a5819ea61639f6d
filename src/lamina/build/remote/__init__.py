"""What a build fetches: files behind URLs, repositories."""
