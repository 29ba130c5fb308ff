"""Spoken questions and spoken answers: Spectron's one pass from speech to text to speech."""
