"""The program of operators and users, the mirror's functions, the bundle and the demo."""
