"""What runs on the far side: the processes in which untrusted text is executed and untrusted answers are parsed.

Nothing in this folder may import from outside it: it is started by path (see `rstar_jax.verifier.process`), so that a
sandboxed process stays small and knows nothing of JAX. Fork costs grow with the size of what is forked.
"""
