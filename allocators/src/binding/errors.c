/* SPDX-License-Identifier: Apache-2.0
 *
 * Exceptions of allocators/errors.py, raised from C.
 */
#include "binding.h"

#include <stdarg.h>

PyObject *raise_error(const struct module_state *state, enum error_class class, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    PyErr_FormatV(state->errors[class], format, arguments);
    va_end(arguments);
    return NULL;
}

PyObject *raise_corrupt(const struct module_state *state, const char *what, int code)
{
    return raise_error(state, ERROR_CorruptionError,
                       "the memory of this %s contradicts itself (code %d): something has written over it", what, code);
}
