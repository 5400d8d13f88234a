"""What users write: workflows, activities, clocks. Defining does nothing by itself."""
