# SPDX-License-Identifier: Apache-2.0
#
# Native build against musl with Debian's musl-tools. musl-gcc sees musl's headers only: the kernel's, which
# belong to no C library, are put beside them.
set(CMAKE_C_COMPILER musl-gcc)

set(kernel_headers ${CMAKE_BINARY_DIR}/kernel-headers)
execute_process(COMMAND cc -print-multiarch OUTPUT_VARIABLE multiarch OUTPUT_STRIP_TRAILING_WHITESPACE)
file(MAKE_DIRECTORY ${kernel_headers})
foreach(name linux asm-generic asm)
  foreach(folder /usr/include/${multiarch} /usr/include)
    if(EXISTS ${folder}/${name})
      file(CREATE_LINK ${folder}/${name} ${kernel_headers}/${name} SYMBOLIC)
      break()
    endif()
  endforeach()
endforeach()
set(CMAKE_C_FLAGS_INIT "-isystem ${kernel_headers}")
