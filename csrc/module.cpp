// The Python module ssimloss._C: loading it registers the operators; it tells what is inside.
#include <Python.h>

#include <exception>

#include "cpu/kernels.h"

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

PyModuleDef module = {PyModuleDef_HEAD_INIT, "_C", nullptr, -1, methods, nullptr, nullptr, nullptr, nullptr};

}  // namespace

PyMODINIT_FUNC PyInit__C() { return PyModule_Create(&module); }
