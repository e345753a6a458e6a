"""How the demo's questions, tokenizer and models were made; not part of the library."""
