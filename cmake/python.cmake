# SPDX-License-Identifier: Apache-2.0
#
# The extension modules ssm._core and allocators._core, as they go into a wheel. Each carries its own copy of
# the core, so that importing needs no shared library. Limited API where the interpreter has one.

find_package(Python REQUIRED COMPONENTS Interpreter Development.Module NumPy ${SKBUILD_SABI_COMPONENT})
if(SKBUILD_SABI_VERSION)
  set(sabi USE_SABI ${SKBUILD_SABI_VERSION})
endif()

include(CheckIPOSupported)
check_ipo_supported(RESULT ipo LANGUAGES C OUTPUT ipo_why_not)
if(CMAKE_BUILD_TYPE STREQUAL "Debug")
  set(ipo OFF)
endif()

add_custom_target(python_modules)

function(add_python_module package)
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${package}/src/binding/*.c)
  if(NOT sources)
    return()
  endif()
  set(target ${package}_core)
  Python_add_library(${target} MODULE WITH_SOABI ${sabi} ${sources} ${ARGN})
  set_target_properties(${target} PROPERTIES OUTPUT_NAME _core INTERPROCEDURAL_OPTIMIZATION ${ipo}
                                             LIBRARY_OUTPUT_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR}/${package})
  target_include_directories(${target} PRIVATE ${package}/src)
  target_link_libraries(${target} PRIVATE ssm_flags Threads::Threads)
  add_dependencies(python_modules ${target})
  install(TARGETS ${target} LIBRARY DESTINATION ${package} COMPONENT python)
endfunction()

foreach(layer IN LISTS ssm_layers)
  set_target_properties(ssm_${layer} PROPERTIES INTERPROCEDURAL_OPTIMIZATION ${ipo})
endforeach()
if(TARGET allocators_objects)
  set_target_properties(allocators_objects PROPERTIES INTERPROCEDURAL_OPTIMIZATION ${ipo})
endif()
add_python_module(allocators ${allocators_o})
add_python_module(ssm ${ssm_o} ${allocators_o})
if(TARGET ssm_core)
  target_link_libraries(ssm_core PRIVATE Python::NumPy)
endif()
