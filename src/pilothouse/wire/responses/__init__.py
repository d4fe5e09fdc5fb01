"""OpenAI's Responses protocol: requests in, whole answers and event streams out."""
