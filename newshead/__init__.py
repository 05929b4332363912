"""newshead: what its commands are made of."""
