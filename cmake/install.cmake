# SPDX-License-Identifier: Apache-2.0
#
# Installs the headers, both libraries, the CMake package (ssm::ssm shared, ssm::ssm_static) and ssm.pc.

include(GNUInstallDirs)
include(CMakePackageConfigHelpers)
set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/ssm)

install(TARGETS ssm ssm_static EXPORT ssm
        LIBRARY COMPONENT library NAMELINK_COMPONENT development
        ARCHIVE COMPONENT development
        INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(FILES ssm/src/ssm.h ssm/src/ssm.hpp DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} COMPONENT development)
install(EXPORT ssm NAMESPACE ssm:: FILE ssmTargets.cmake DESTINATION ${package_dir} COMPONENT development)

configure_package_config_file(cmake/ssmConfig.cmake.in ${PROJECT_BINARY_DIR}/ssmConfig.cmake
                              INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/ssmConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/ssmConfig.cmake ${PROJECT_BINARY_DIR}/ssmConfigVersion.cmake
        DESTINATION ${package_dir} COMPONENT development)

# Relative to the .pc file itself: the installed tree may be moved.
file(RELATIVE_PATH pc_prefix /prefix/${CMAKE_INSTALL_LIBDIR}/pkgconfig /prefix)
configure_file(cmake/ssm.pc.in ${PROJECT_BINARY_DIR}/ssm.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/ssm.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig COMPONENT development)
