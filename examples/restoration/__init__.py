"""What the paper's three restoration tasks share; a task's own script says the rest.

task      the order of things: read, degrade, train each loss, evaluate, write; the options
data      photographs from a folder tree; 31x31 patches at stride 7
network   conv 9x9, 5x5, 5x5 with PReLU
train     the training loop, on Lightning Fabric
evaluate  restored pictures, PSNR, SSIM, MS-SSIM and their table
page      index.html
files     files that are never seen half-written
"""
