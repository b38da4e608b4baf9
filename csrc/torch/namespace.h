// The operators' namespace, torch.ops.ssimloss, and ssimloss/_ops.py in Python. The kernel hub gives each
// build one of its own: it defines SSIMLOSS_NAMESPACE for the compiler (hub/build.toml), and writes another
// _ops.py.
#pragma once

#ifndef SSIMLOSS_NAMESPACE
#define SSIMLOSS_NAMESPACE ssimloss
#endif
#define SSIMLOSS_TEXT(name) #name
#define SSIMLOSS_NAME_OF(macro) SSIMLOSS_TEXT(macro)
#define SSIMLOSS_OPERATOR(name) SSIMLOSS_NAME_OF(SSIMLOSS_NAMESPACE) "::" name
