"""Keys, certificates and kits: how a consortium's machines come to know one another."""
