/* Runs one fuzz target of targets.py under libFuzzer.

   Law: the target sees each input as a bytes object of its own heap block, of which the byte behind
   the last one, a zero that CPython keeps there, may not be read by instrumented code. An exception
   that leaves the target is a crash.

   Lines of the Python file that WEIR_FUZZ_TRACED names count as coverage: an edge is two lines one
   after the other. Built without sanitizers, it runs a target that is all Python.

   Source: LLVM, "libFuzzer", sections on fuzz targets and extra counters; CPython, "Python
   Initialization Configuration". */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <frameobject.h>
#if __has_feature(address_sanitizer)
#include <sanitizer/asan_interface.h>
#define WATCHED 1
#else
#define WATCHED 0
#define ASAN_POISON_MEMORY_REGION(address, size) ((void)(address))
#define ASAN_UNPOISON_MEMORY_REGION(address, size) ((void)(address))
#endif
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COUNTERS 8192

__attribute__((section("__libfuzzer_extra_counters"))) static uint8_t counters[COUNTERS];

static PyObject *target;
static const char *traced;
static PyObject *traced_file; /* the file's name as its code objects have it */
static uint32_t previous_line;

static void fail(const char *what) {
    fprintf(stderr, "driver: %s\n", what);
    if (PyErr_Occurred()) PyErr_Print();
    fflush(NULL);
    abort();
}

static int is_traced(PyCodeObject *code) {
    if (traced_file) return code->co_filename == traced_file;
    const char *name = PyUnicode_AsUTF8(code->co_filename);
    if (!name) fail("a file has no name");
    size_t length = strlen(name), wanted = strlen(traced);
    if (length < wanted || strcmp(name + length - wanted, traced)) return 0;
    traced_file = Py_NewRef(code->co_filename);
    return 1;
}

static int on_event(PyObject *unused, PyFrameObject *frame, int what, PyObject *argument) {
    (void)unused, (void)argument;
    if (what != PyTrace_LINE) return 0;
    PyCodeObject *code = PyFrame_GetCode(frame);
    if (is_traced(code)) {
        uint32_t line = (uint32_t)PyFrame_GetLineNumber(frame);
        uint32_t edge = (previous_line * 1031u + line) % COUNTERS;
        if (counters[edge] < 255) counters[edge]++;
        previous_line = line;
    }
    Py_DECREF(code);
    return 0;
}

static const char *needed(const char *name) {
    const char *value = getenv(name);
    if (!value || !*value) {
        fprintf(stderr, "driver: %s is not set\n", name);
        exit(2);
    }
    return value;
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc, (void)argv;
    PyPreConfig before;
    PyPreConfig_InitPythonConfig(&before);
    /* Each object in a block of its own, which the sanitizer watches. */
    if (WATCHED) before.allocator = PYMEM_ALLOCATOR_MALLOC;
    PyStatus status = Py_PreInitialize(&before);
    if (PyStatus_Exception(status)) Py_ExitStatusException(status);
    PyConfig config;
    PyConfig_InitPythonConfig(&config);
    config.install_signal_handlers = 0;
    status = PyConfig_SetBytesString(&config, &config.program_name, needed("WEIR_FUZZ_PYTHON"));
    if (!PyStatus_Exception(status)) status = Py_InitializeFromConfig(&config);
    PyConfig_Clear(&config);
    if (PyStatus_Exception(status)) Py_ExitStatusException(status);

    PyObject *module = PyImport_ImportModule("tests.fuzz.guided");
    if (!module) fail("tests.fuzz.guided cannot be imported");
    target = PyObject_CallMethod(
        module, "start", "zs", getenv("WEIR_FUZZ_MODULES"), needed("WEIR_FUZZ_TARGET"));
    if (!target) fail("the target does not start");
    Py_DECREF(module);
    traced = getenv("WEIR_FUZZ_TRACED");
    if (traced && *traced) PyEval_SetTrace(on_event, NULL);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0) return 0;
    PyObject *options = PyLong_FromLong(data[0]);
    PyObject *body = PyBytes_FromStringAndSize((const char *)data + 1, (Py_ssize_t)size - 1);
    if (!options || !body) fail("no memory");
    previous_line = 0;
    /* Objects of no byte and of one are shared by the whole interpreter. */
    const char *last = PyBytes_AS_STRING(body) + size - 1;
    int own = size > 2;
    if (own) ASAN_POISON_MEMORY_REGION(last, 1);
    PyObject *arguments[] = {options, body};
    PyObject *result = PyObject_Vectorcall(target, arguments, 2, NULL);
    if (own) ASAN_UNPOISON_MEMORY_REGION(last, 1);
    if (!result) fail("the target's invariant does not hold");
    Py_DECREF(result);
    Py_DECREF(body);
    Py_DECREF(options);
    return 0;
}
