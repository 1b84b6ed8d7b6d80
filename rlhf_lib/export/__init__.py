"""Taking a trained model away: an export with its model card, a push to the hub, a server on loopback."""
