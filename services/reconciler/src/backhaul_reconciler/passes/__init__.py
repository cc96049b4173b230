"""What a run asks for, in pages: see the design in docs/architecture.md."""
