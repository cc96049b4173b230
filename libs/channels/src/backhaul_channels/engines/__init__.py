"""What several providers may share, beside them: an engine imports no provider, and providers import no other one."""
