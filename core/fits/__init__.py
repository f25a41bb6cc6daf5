"""FITS files as the standard defines them: HDUs, pixel formats, header cards."""
