/* libFuzzer target: two sets of arguments of acquire() through csrc/python/key.c and what it is made of, in an embedded
 * Python. key_oracle.py makes them from the bytes, and says what each key must say. It holds:
 *   - two keys are equal byte for byte exactly where the oracle's normal forms are equal;
 *   - what is refused is refused with the class of error that the oracle names;
 *   - a key shows its parts (py_key_describe) as they went in;
 *   - no object and no reference is lost, and no byte of a key is left in memory.
 *
 * Python itself is not instrumented. FUZZ_ORACLE is the folder of key_oracle.py. */
#include "../../csrc/python/key.h"

#include <stdlib.h>
#include <string.h>

#include "../../csrc/base/alloc.h"
#include "../c/harness.h"

#define ARGUMENTS 5 /* of a key, the stub of the pool apart */
#define NAMES_MAX 16
#define REPEATS 3

enum flag {
    HAS_EXTRACTOR = 1,
    HAS_AFFINITY = 2,
    IS_ISOLATED = 4,
    HOOK_KEY = 8,
    HOOK_IDENTITY = 16
};

struct built {
    int status;
    PyObject *bytes; /* owned; NULL where it was refused */
    PyObject *error; /* owned; its class then */
    bool is_anonymous, is_single_use;
    size_t identity;
};

static py_state state;   /* of the module: what key.c reads of it */
static PyObject *oracle; /* owned: key_oracle.case */
static PyObject *block_counter;

/* ---- memory of keys: wiped before it is freed ------------------------------------------ */

struct block {
    size_t size;
    max_align_t bytes[];
};

static void *
wiped_realloc(void *context, void *old, size_t size)
{
    (void)context;
    CHECK(old == NULL); /* a key is never moved by realloc(), which leaves a copy behind */
    struct block *block = malloc(sizeof(*block) + size);
    CHECK(block != NULL);
    block->size = size;
    memset(block->bytes, 0, size);
    return block->bytes;
}

static void
wiped_free(void *context, void *bytes)
{
    (void)context;
    struct block *block = (void *)((char *)bytes - offsetof(struct block, bytes));
    for (size_t i = 0; i < block->size; i++) {
        CHECK(((const uint8_t *)bytes)[i] == 0);
    }
    free(block);
}

/* ---- start ------------------------------------------------------------------------------- */

static PyObject *
need(PyObject *object)
{
    if (object == NULL) {
        PyErr_Print();
        abort();
    }
    return object;
}

static PyObject *
module_attribute(const char *module_name, const char *name)
{
    PyObject *module = need(PyImport_ImportModule(module_name));
    PyObject *value = need(PyObject_GetAttrString(module, name));
    Py_DECREF(module);
    return value;
}

int LLVMFuzzerInitialize(int *argc, char ***argv);

int
LLVMFuzzerInitialize(int *argc, char ***argv)
{
    static const struct mgp_allocator allocator = {wiped_realloc, wiped_free, NULL};
    PyConfig config;
    (void)argc;
    (void)argv;
    PyConfig_InitIsolatedConfig(&config);
    config.write_bytecode = 0;
    PyStatus status = Py_InitializeFromConfig(&config);
    PyConfig_Clear(&config);
    if (PyStatus_Exception(status)) {
        Py_ExitStatusException(status);
    }
    PyObject *path = need(PySys_GetObject("path")); /* borrowed */
    PyObject *folder = need(PyUnicode_FromString(FUZZ_ORACLE));
    CHECK(PyList_Insert(path, 0, folder) == 0);
    Py_DECREF(folder);
    oracle = module_attribute("key_oracle", "case");
    block_counter = module_attribute("sys", "getallocatedblocks");
    state.transport_sse = module_attribute("key_oracle", "SSE");
    state.transport_streamable_http = module_attribute("key_oracle", "STREAMABLE_HTTP");
    state.str_extract_identity = need(PyUnicode_InternFromString("_extract_identity"));
    state.hook_names[PY_HOOK_MAKE_POOL_KEY] = need(PyUnicode_InternFromString("_make_pool_key"));
    state.hook_names[PY_HOOK_COMPUTE_IDENTITY_HASH] =
        need(PyUnicode_InternFromString("_compute_identity_hash"));
    mgp_allocator_set(&allocator);
    return 0;
}

/* As setup_identity() of csrc/python/pool.c. */
static void
identity_init(py_identity *identity, PyObject *names, long flags, py_header_name views[NAMES_MAX])
{
    memset(identity, 0, sizeof(*identity));
    identity->names = names;
    identity->views = views;
    identity->count = PyTuple_GET_SIZE(names);
    identity->isolate_by_session = flags & IS_ISOLATED;
    identity->has_affinity = flags & HAS_AFFINITY;
    identity->extractor =
        flags & HAS_EXTRACTOR ? names : NULL; /* only asked whether there is one */
    CHECK(identity->count <= NAMES_MAX);
    for (size_t size = 0; size <= PY_HEADER_NAME_MAX; size++) {
        identity->first_of_size[size] = -1;
    }
    for (Py_ssize_t i = 0; i < identity->count; i++) {
        PyObject *name = PyTuple_GET_ITEM(names, i);
        views[i].bytes = PyUnicode_AsUTF8AndSize(name, &views[i].size);
        views[i].next_of_size = identity->first_of_size[views[i].size];
        identity->first_of_size[views[i].size] = (int)i;
    }
}

/* ---- one key ----------------------------------------------------------------------------- */

static struct built
build(const py_identity *identity, long flags, PyObject *stub, PyObject *arguments)
{
    unsigned hooks = (flags & HOOK_KEY ? 1u << PY_HOOK_MAKE_POOL_KEY : 0) |
                     (flags & HOOK_IDENTITY ? 1u << PY_HOOK_COMPUTE_IDENTITY_HASH : 0);
    py_key_arguments given = {
        .pool = stub,
        .url = PyTuple_GET_ITEM(arguments, 0),
        .headers = PyTuple_GET_ITEM(arguments, 1),
        .transport_type = PyTuple_GET_ITEM(arguments, 2),
        .user_identity = PyTuple_GET_ITEM(arguments, 3),
        .gateway_id = PyTuple_GET_ITEM(arguments, 4),
    };
    py_key key;
    struct built built = {0};
    memset(&key, 0, sizeof(key));
    py_key_init(&key);
    built.status = py_key_build(&state, identity, hooks, &given, &key);
    CHECK((built.status < 0) == (PyErr_Occurred() != NULL));
    if (built.status < 0) {
        built.error = Py_NewRef(PyErr_Occurred());
        PyErr_Clear();
    } else {
        built.bytes =
            need(PyBytes_FromStringAndSize((const char *)key.bytes, (Py_ssize_t)key.size));
        built.is_anonymous = key.is_anonymous;
        built.is_single_use = key.is_single_use;
        built.identity = key.identity;
    }
    py_key_fini(&key);
    for (size_t i = 0; i < sizeof(key.inline_bytes); i++) {
        CHECK(key.inline_bytes[i] == 0);
    }
    return built;
}

static void
built_fini(struct built *built)
{
    Py_CLEAR(built->bytes);
    Py_CLEAR(built->error);
}

static bool
is_equal(PyObject *a, PyObject *b)
{
    int result = PyObject_RichCompareBool(a, b, Py_EQ);
    CHECK(result >= 0);
    return result == 1;
}

/* What the key shows is what the oracle says. */
static void
check_described(const struct built *built, PyObject *parts, PyObject *normal)
{
    PyObject *shown = need(
        py_key_describe(PyBytes_AS_STRING(built->bytes), (size_t)PyBytes_GET_SIZE(built->bytes)));
    bool is_whole = PyTuple_GET_ITEM(normal, 1) != Py_None; /* else of _make_pool_key() */
    Py_ssize_t count = PyTuple_GET_SIZE(parts);
    CHECK(PyTuple_GET_SIZE(shown) == count + is_whole);
    for (Py_ssize_t i = 0; i < count; i++) {
        CHECK(is_equal(PyTuple_GET_ITEM(shown, i), PyTuple_GET_ITEM(parts, i)));
    }
    if (is_whole) {
        CHECK(PyBytes_Size(PyTuple_GET_ITEM(shown, count)) ==
              PyBytes_GET_SIZE(built->bytes) - (Py_ssize_t)built->identity);
    }
    Py_DECREF(shown);
}

static void
check_key(const struct built *built, PyObject *normal)
{
    if (!PyTuple_Check(normal)) {
        CHECK(built->error == normal);
        return;
    }
    CHECK(built->bytes != NULL);
    CHECK(built->is_anonymous == (PyTuple_GET_ITEM(normal, 2) == Py_True));
    CHECK(built->is_single_use == (PyTuple_GET_ITEM(normal, 3) == Py_True));
    check_described(built, PyTuple_GET_ITEM(normal, 0), normal);
}

/* ---- references -------------------------------------------------------------------------- */

static Py_ssize_t
count_blocks(void)
{
    PyObject *count = need(PyObject_CallNoArgs(block_counter));
    Py_ssize_t blocks = PyLong_AsSsize_t(count);
    Py_DECREF(count);
    return blocks;
}

/* Of all that the arguments consist of. */
static Py_ssize_t
sum_references(PyObject *stub, PyObject *arguments)
{
    PyObject *name, *value, *headers = PyTuple_GET_ITEM(arguments, 1);
    Py_ssize_t position = 0, sum = Py_REFCNT(stub);
    for (Py_ssize_t i = 0; i <= ARGUMENTS; i++) { /* with what the stub says */
        sum += Py_REFCNT(PyTuple_GET_ITEM(arguments, i));
    }
    while (PyDict_Check(headers) && PyDict_Next(headers, &position, &name, &value)) {
        sum += Py_REFCNT(name) + Py_REFCNT(value);
    }
    return sum;
}

static void
check_nothing_is_lost(const py_identity *identity, long flags, PyObject *stub, PyObject *arguments)
{
    Py_ssize_t references = sum_references(stub, arguments), blocks = count_blocks();
    for (int i = 0; i < REPEATS; i++) {
        struct built built = build(identity, flags, stub, arguments);
        built_fini(&built);
    }
    CHECK(sum_references(stub, arguments) == references);
    CHECK(count_blocks() < blocks + REPEATS);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    py_identity identity;
    py_header_name views[NAMES_MAX];
    PyObject *both =
        need(PyObject_CallFunction(oracle, "y#", (const char *)data, (Py_ssize_t)size));
    PyObject **item = &PyTuple_GET_ITEM(both, 0); /* see key_oracle.case() */
    long flags = PyLong_AsLong(item[1]);
    identity_init(&identity, item[0], flags, views);
    struct built a = build(&identity, flags, item[2], item[3]);
    struct built b = build(&identity, flags, item[5], item[6]);
    check_key(&a, item[4]);
    check_key(&b, item[7]);
    if (a.bytes != NULL && b.bytes != NULL) {
        CHECK(is_equal(a.bytes, b.bytes) == (item[8] == Py_True));
    }
    built_fini(&a);
    built_fini(&b);
    check_nothing_is_lost(&identity, flags, item[2], item[3]);
    Py_DECREF(both);
    return 0;
}
