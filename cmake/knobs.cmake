# SPDX-License-Identifier: Apache-2.0
#
# What a pool is by default: cache variables that reach the C sources as macros of the same names. Each is checked here,
# so that what builds works. Runs by itself, too, to check values:  cmake -DSSM_POOL_SHARDS=8 -P cmake/knobs.cmake
#
# README.md has the same table.

set(knobs "")
set(refused OFF)

# A whole number from `low` to `high`. No leading zero: C takes such a number for octal.
function(ssm_knob name default low high what)
  set(${name} ${default} CACHE STRING "${what}, ${low} .. ${high}")
  if(NOT "${${name}}" MATCHES "^(0|[1-9][0-9]*)$" OR "${${name}}" LESS ${low} OR "${${name}}" GREATER ${high})
    message(SEND_ERROR "${name}=${${name}}: want a number, ${low} .. ${high} (${what})")
    set(refused ON PARENT_SCOPE)
  endif()
  set(knobs ${knobs} ${name} PARENT_SCOPE)
endfunction()

set(blocks_max 2147483647)
ssm_knob(SSM_POOL_SHARDS       4    1 64            "shards per size class")
ssm_knob(SSM_POOL_HOLDERS      128  1 4096          "processes and rings that can hold blocks, rounded up to 64")
ssm_knob(SSM_POOL_256_BLOCKS   1024 0 ${blocks_max} "blocks of 256 B; 0: no such class")
ssm_knob(SSM_POOL_512_BLOCKS   768  0 ${blocks_max} "blocks of 512 B; 0: no such class")
ssm_knob(SSM_POOL_1K_BLOCKS    512  0 ${blocks_max} "blocks of 1 KiB; 0: no such class")
ssm_knob(SSM_POOL_2K_BLOCKS    384  0 ${blocks_max} "blocks of 2 KiB; 0: no such class")
ssm_knob(SSM_POOL_4K_BLOCKS    256  0 ${blocks_max} "blocks of 4 KiB; 0: no such class")
ssm_knob(SSM_POOL_16K_BLOCKS   128  0 ${blocks_max} "blocks of 16 KiB; 0: no such class")
ssm_knob(SSM_POOL_64K_BLOCKS   64   0 ${blocks_max} "blocks of 64 KiB; 0: no such class")
ssm_knob(SSM_POOL_256K_BLOCKS  32   0 ${blocks_max} "blocks of 256 KiB; 0: no such class")
ssm_knob(SSM_POOL_1M_BLOCKS    16   0 ${blocks_max} "blocks of 1 MiB; 0: no such class")
ssm_knob(SSM_PK_BUFF_HEADSPACE 256  0 1048575       "bytes in front of a fresh packet's data")
ssm_knob(SSM_PK_BUFF_TAILSPACE 32   0 1048575       "bytes kept free behind a packet's data")
ssm_knob(SSM_RBUFF_SIZE        1024 1 16777216      "packets that a ring holds")

if(refused)
  message(FATAL_ERROR "ssm cannot be built with these values.")
endif()

# ---- What they have to be together ------------------------------------------------------------------

set(largest 0)
set(blocks 0)
foreach(size 256 512 1K 2K 4K 16K 64K 256K 1M)
  math(EXPR blocks "${blocks} + ${SSM_POOL_${size}_BLOCKS}")
  if(SSM_POOL_${size}_BLOCKS GREATER 0)
    string(REPLACE "K" " * 1024" largest ${size})
    string(REPLACE "M" " * 1048576" largest ${largest})
    math(EXPR largest "${largest}")
  endif()
endforeach()
if(blocks EQUAL 0 OR blocks GREATER blocks_max)
  message(FATAL_ERROR "SSM_POOL_..._BLOCKS are ${blocks} in all: want 1 .. ${blocks_max}")
endif()
math(EXPR space "${SSM_PK_BUFF_HEADSPACE} + ${SSM_PK_BUFF_TAILSPACE}")
if(NOT space LESS largest)
  message(FATAL_ERROR "SSM_PK_BUFF_HEADSPACE + SSM_PK_BUFF_TAILSPACE = ${space}: want less than the largest blocks, "
                      "which have ${largest} bytes; else no packet fits")
endif()
