"""One file for each question: rows and a verdict of one version. It knows no HTTP."""
