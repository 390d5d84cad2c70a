"""What runs look like: tables for the terminal, pictures for documents."""
