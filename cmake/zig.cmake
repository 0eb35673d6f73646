# SPDX-License-Identifier: Apache-2.0
#
# zig's C compiler, which has headers and stubs of every glibc, and musl, for several processors. CMake believes to build
# for this machine: nothing that it builds here depends on that, and it still finds the interpreter. Two variables of
# the environment say what is wanted, since builders of wheels hand on nothing else:
#   SSM_ZIG         the zig executable (PyPI: ziglang)
#   SSM_ZIG_TARGET  such as x86_64-linux-gnu.2.17 or aarch64-linux-musl
set(target "$ENV{SSM_ZIG_TARGET}")
if(NOT "${target}" MATCHES "^(x86_64|aarch64)-linux-(musl|gnu\\.2\\.[0-9]+)$")
  message(FATAL_ERROR "SSM_ZIG_TARGET=${target}: want such as x86_64-linux-gnu.2.17 or aarch64-linux-musl")
endif()
set(CMAKE_C_COMPILER "$ENV{SSM_ZIG}" cc -target ${target})
set(CMAKE_C_FLAGS_INIT "-fno-sanitize=undefined") # zig's default, for debugging
set(CMAKE_C_FLAGS_RELEASE_INIT "-flto") # CMake cannot find out that this compiler does it
set(CMAKE_MODULE_LINKER_FLAGS_INIT "-s") # strip knows this machine's own format only
