"""Spectra of weight matrices and what chance gives."""
