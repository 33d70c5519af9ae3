"""The computations of the financial analyst: plain functions that know nothing of Callboard."""
