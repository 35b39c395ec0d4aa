"""Tests of search, with a scripted world instead of models and a sandbox."""
