// The Python module ssimloss._C: loading it registers the operators; it tells what is inside. The builder,
// torch's or the kernel hub's, defines its name for the compiler, TORCH_EXTENSION_NAME.
#include <Python.h>

#include <exception>

#include "cpu/kernels.h"
#include "torch/namespace.h"

namespace ssimloss {
extern const char cuda_architectures[];  // in a source that setup.py writes
}

namespace {

PyObject* cpu_variant(PyObject*, PyObject*) {
  try {
    return PyUnicode_FromString(ssimloss::cpu_kernels().name);
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_ValueError, error.what());
    return nullptr;
  }
}

PyObject* cuda_architectures(PyObject*, PyObject*) {
  return PyUnicode_FromString(ssimloss::cuda_architectures);
}

PyMethodDef methods[] = {
    {"cpu_variant", cpu_variant, METH_NOARGS, "Name of the CPU kernels that run on this machine."},
    {"cuda_architectures", cuda_architectures, METH_NOARGS, "Space-separated architectures inside."},
    {nullptr, nullptr, 0, nullptr},
};

PyModuleDef module = {PyModuleDef_HEAD_INIT,
                      SSIMLOSS_NAME_OF(TORCH_EXTENSION_NAME),
                      nullptr,
                      -1,
                      methods,
                      nullptr,
                      nullptr,
                      nullptr,
                      nullptr};

}  // namespace

#define INIT_OF(name) PyInit_##name
#define INIT(macro) INIT_OF(macro)
PyMODINIT_FUNC INIT(TORCH_EXTENSION_NAME)() { return PyModule_Create(&module); }
