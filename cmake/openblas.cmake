# The target capsfw::openblas. One file for the build and for the installed package, where a static
# library has to find OpenBLAS again. CMake's FindBLAS would tie us to whatever BLAS::BLAS the project
# around us has chosen, and the CMake package of Debian's OpenBLAS defines no target.
if(NOT TARGET capsfw::openblas)
  find_library(CAPSFW_OPENBLAS openblas DOC "The OpenBLAS library")
  mark_as_advanced(CAPSFW_OPENBLAS)
  if(CAPSFW_OPENBLAS)
    add_library(capsfw::openblas UNKNOWN IMPORTED GLOBAL)
    set_target_properties(capsfw::openblas PROPERTIES IMPORTED_LOCATION ${CAPSFW_OPENBLAS})
  endif()
endif()
