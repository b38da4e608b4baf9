"""What the paper's three restoration tasks share; a task's own script says the rest.

run       from the command line to the folder: the options and the order of things
task      a task, and its part of a run
command   what is wrong, in one line
pictures  pictures of any format, read and written
metadata  what a picture says beside its pixels
data      photographs from a folder tree
degrade   JPEG; a noisy Bayer mosaic; low resolution
patches   31x31 patches at stride 7, drawn, cut and degraded on the training device
losses    every loss of the tables, in one line each
network   convolutions with PReLU, and their files
train     the training loop, on Lightning Fabric
workers   networks trained side by side, a process for each core
progress  the live table, curves.csv, TensorBoard
evaluate  restored pictures and the rows of their metrics
metrics   the nine metrics of the tables
residuals noise beside edges, splotches in flat areas
baseline  BM3D
stats     means with 95 % intervals
claims    the paper's eight claims, judged
paper     the cells of the paper's tables, beside ours
report    the files that a run leaves
page      index.html
tiling    pictures of any size, tile by tile
files     files that are never seen half-written
"""
