"""Converting downloaded annotations to what the data sets read; datasets/prepare_*.py run this."""
