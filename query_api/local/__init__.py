"""The whole pipeline as processes of one machine, with a demo that loses lines on purpose."""
