"""Small base models that travel with the repository, and the script that makes them."""
