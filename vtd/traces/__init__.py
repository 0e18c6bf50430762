"""DMA traces: files of the rows that ``vtd.batch`` declares, made from logs or generated."""
