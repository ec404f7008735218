"""What an opened recording offers: the contract between readers and the rest."""
