"""Jobs: long lists of requests that are submitted, followed and resumed."""
