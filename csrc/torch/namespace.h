// The operators' namespace, torch.ops.ssimloss. A kernel hub that gives each build one of its own defines it
// for the compiler; ssimloss/ops.py, options.py, memory.py and warn.py name it in Python.
#pragma once

#ifndef SSIMLOSS_NAMESPACE
#define SSIMLOSS_NAMESPACE ssimloss
#endif
