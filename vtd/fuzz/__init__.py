"""Fuzzing of translation logic: strategies, a model driver, an oracle, targets and campaigns."""
