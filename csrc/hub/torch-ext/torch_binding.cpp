// What setup.py writes in its own builds: the CUDA architectures inside. Of a hub's build metadata.json names
// them. The operators are in csrc/torch, the Python module in csrc/module.cpp.
namespace ssimloss {
#ifdef CUDA_KERNEL
extern const char cuda_architectures[] = "metadata.json";
#else
extern const char cuda_architectures[] = "";
#endif
}  // namespace ssimloss
